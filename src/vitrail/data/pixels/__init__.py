"""From a file to the pixels of a frame: decoding, fitting, random changes."""
