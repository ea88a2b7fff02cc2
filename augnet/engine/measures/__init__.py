"""What is measured of a batch's rows, on the device and on the host."""
