"""What makes a training step faster: compiling, CUDA graphs, memory that is kept."""
