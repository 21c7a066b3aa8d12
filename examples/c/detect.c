/* detect MODEL.mpqy PHOTO.ppm [MIN_SCORE]: prints what the model finds in a binary PPM (P6, 8 bits).
 * cc -Iengine/include examples/c/detect.c -Lbuild/engine -lmpqyolo -o detect */
#include <stdio.h>
#include <stdlib.h>

#include "mpqyolo.h"

static uint8_t* read_ppm(const char* path, int* w, int* h) {
  FILE* file = fopen(path, "rb");
  uint8_t* pixels = NULL;
  int deep;
  if (file && fscanf(file, "P6 %d %d %d", w, h, &deep) == 3 && deep == 255 && *w > 0 && *h > 0 && *w <= 65536 && *h <= 65536) {
    const size_t size = (size_t)*w * (size_t)*h * 3;
    fgetc(file); /* the one white space behind the header */
    pixels = malloc(size);
    if (pixels && fread(pixels, 1, size, file) != size) {
      free(pixels);
      pixels = NULL;
    }
  }
  if (file) fclose(file);
  return pixels;
}

int main(int argc, char** argv) {
  char error[256];
  if (argc < 3) {
    fprintf(stderr, "usage: detect MODEL.mpqy PHOTO.ppm [MIN_SCORE]\n");
    return 2;
  }
  mpq_model* model = mpq_model_open(argv[1], error, sizeof error);
  if (!model) {
    fprintf(stderr, "%s: %s\n", argv[1], error);
    return 2;
  }
  mpq_session* session = mpq_session_new(model, NULL, error, sizeof error);
  if (!session) {
    fprintf(stderr, "%s: %s\n", argv[1], error);
    return 2;
  }
  int w = 0, h = 0;
  uint8_t* photo = read_ppm(argv[2], &w, &h);
  if (!photo) {
    fprintf(stderr, "%s: not a binary 8-bit PPM file\n", argv[2]);
    return 2;
  }
  mpq_box boxes[300];
  const float min_score = argc > 3 ? (float)atof(argv[3]) : 0.25f;
  const int32_t count = mpq_session_detect(session, photo, w, h, (ptrdiff_t)w * 3, min_score, 0, boxes, 300, error, sizeof error);
  if (count < 0) fprintf(stderr, "%s\n", error);
  for (int32_t i = 0; i < count; i++)
    printf("%s %.6f %.2f %.2f %.2f %.2f\n", mpq_model_class_name(model, boxes[i].class_id), boxes[i].score, boxes[i].x1,
           boxes[i].y1, boxes[i].x2, boxes[i].y2);
  free(photo);
  mpq_session_free(session);
  mpq_model_free(model);
  return count < 0 ? 1 : 0;
}
