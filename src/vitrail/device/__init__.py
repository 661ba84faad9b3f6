"""What a device needs beside an exported file and its runtime: NumPy and Pillow, no PyTorch.

``pixels`` makes an image the input of a model, ``outputs`` decodes what a model gives, ``answer`` goes the whole way.
The folder can be copied to a device, as ``vitrail/device``; it imports nothing else of Vitrail.
"""
