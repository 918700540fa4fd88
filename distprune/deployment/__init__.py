"""What becomes of a mask outside a study: folders, ONNX, certificates, measured latency."""
