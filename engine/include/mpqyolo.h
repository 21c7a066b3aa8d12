/* MPQ-YOLO engine: runs a .mpqy model file (docs/format.md) bit-exactly (docs/numerics.md) on a plain CPU.
 *
 * Nothing here is global. A model is read-only and may be shared by threads and sessions; a session belongs to one
 * thread at a time, so give each thread its own. A session keeps its model alive: free them in any order.
 *
 * Functions that can fail take `error` and `error_size`, a buffer (or NULL, 0) that receives one line of text, and
 * return NULL or a negative number on failure; all others want handles and buffers that are not NULL. Strings are UTF-8 and live as long as the handle they came from. */
#ifndef MPQYOLO_H
#define MPQYOLO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define MPQ_API __declspec(dllexport)
#else
#define MPQ_API __attribute__((visibility("default")))
#endif

#define MPQ_ABI_VERSION 1

typedef struct mpq_model mpq_model;
typedef struct mpq_session mpq_session;

/* Zero in a field means its default. */
typedef struct mpq_options {
  int32_t height, width; /* of the network's input, multiples of the largest stride; default: as in the file */
  int32_t threads;       /* 1..64, default 1 */
  int32_t keep_tensors;  /* not 0: no memory is reused, so that mpq_session_tensor reads every tensor */
  const char* isa;       /* "serial", "avx2", "avxvnni", "avx512"; default: environment variable MPQ_ISA, else the best that the CPU has */
} mpq_options;

typedef struct mpq_model_info {
  int32_t height, width, channels; /* input of the file's default size, channels in a pixel */
  int32_t classes;
  int32_t stride; /* largest stride: input sizes are multiples of it */
  float iou;      /* default of suppression */
} mpq_model_info;

typedef struct mpq_session_info {
  int32_t height, width, threads, layers;
  uint64_t arena_bytes;    /* maps and scratch: all that a run writes */
  uint64_t prepared_bytes; /* weights, laid out as the kernels want them */
  const char* isa;
} mpq_session_info;

typedef struct mpq_box {
  float x1, y1, x2, y2; /* pixels of the photo */
  float score;
  int32_t class_id;
} mpq_box;

/* Where a photo of w x h pixels lies in the letterboxed input. */
typedef struct mpq_placement {
  int32_t left, top, nw, nh, w, h;
} mpq_placement;

typedef struct mpq_tensor_info {
  int32_t dtype; /* 0 u8, 1 b1, 2 u4, 3 s16 */
  int32_t channels, height, width;
} mpq_tensor_info;

typedef struct mpq_layer_info {
  const char *name, *kernel; /* kernel: the table entry that runs it, or the operator */
  uint64_t nanoseconds;      /* of the last run */
} mpq_layer_info;

MPQ_API const char* mpq_version(void);
MPQ_API int32_t mpq_abi_version(void);

/* The file is mapped and must not change while the model lives; bytes in memory are copied. */
MPQ_API mpq_model* mpq_model_open(const char* path, char* error, size_t error_size);
MPQ_API mpq_model* mpq_model_open_memory(const void* data, size_t size, char* error, size_t error_size);
MPQ_API void mpq_model_free(mpq_model* model);
MPQ_API mpq_model_info mpq_model_describe(const mpq_model* model);
/* NULL if there is no such class. */
MPQ_API const char* mpq_model_class_name(const mpq_model* model, int32_t class_id);
/* The JSON header of the file (not terminated by zero). */
MPQ_API const char* mpq_model_header(const mpq_model* model, size_t* length);

/* All that a run needs is allocated here, nothing by mpq_session_run. `options` may be NULL. A session of several threads has none of
 * them in a forked child and would wait for ever there: make it after the fork. */
MPQ_API mpq_session* mpq_session_new(const mpq_model* model, const mpq_options* options, char* error, size_t error_size);
MPQ_API void mpq_session_free(mpq_session* session);
MPQ_API mpq_session_info mpq_session_describe(const mpq_session* session);

/* The network alone. image: height * width * channels bytes, row by row, already letterboxed. */
MPQ_API void mpq_session_run(mpq_session* session, const uint8_t* image);

/* Boxes of the last run, best first, at most `capacity` (300 are the most there can be); returns how many.
 * place: NULL for boxes in pixels of the input. iou: 0 for the model's own. */
MPQ_API int32_t mpq_session_decode(const mpq_session* session, float min_score, float iou, const mpq_placement* place,
                                   mpq_box* boxes, int32_t capacity, char* error, size_t error_size);

/* Letterbox, run and decode: photo is RGB, 3 bytes a pixel, row_stride bytes from one row to the next. */
MPQ_API int32_t mpq_session_detect(mpq_session* session, const uint8_t* photo, int32_t w, int32_t h, ptrdiff_t row_stride,
                                   float min_score, float iou, mpq_box* boxes, int32_t capacity, char* error, size_t error_size);

/* A tensor of the last run as a dense array (channels, height, width): u8 and u4 as uint8, b1 as int8 -1 or +1, s16 as
 * int16. values may be NULL to ask for the shape. Returns the bytes it takes. Without keep_tensors only graph outputs
 * can be read. */
MPQ_API int64_t mpq_session_tensor(const mpq_session* session, const char* name, mpq_tensor_info* info, void* values, size_t size,
                                   char* error, size_t error_size);

/* layer: 0..layers-1. */
MPQ_API mpq_layer_info mpq_session_layer(const mpq_session* session, int32_t layer);

/* A photo of w x h RGB pixels scaled into an image of width x height pixels, 3 bytes each, on grey. */
MPQ_API int32_t mpq_letterbox(const uint8_t* photo, int32_t w, int32_t h, ptrdiff_t row_stride, uint8_t* image, int32_t width,
                              int32_t height, mpq_placement* place, char* error, size_t error_size);

#ifdef __cplusplus
}
#endif
#endif
