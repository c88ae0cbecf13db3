"""What the package runs on: files, threads, devices, numbers."""
