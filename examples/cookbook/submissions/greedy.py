data = bytearray(1 << 30)
