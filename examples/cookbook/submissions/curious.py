import os

print(os.listdir("/home"))
