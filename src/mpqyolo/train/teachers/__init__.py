"""Teachers: whatever finds objects says what it sees at every cell of the very images that are trained on."""
