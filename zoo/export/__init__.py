"""Models as files for other runtimes: ONNX and torch.export, each held against the module that it came from."""
