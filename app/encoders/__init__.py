"""From a picture or a text to a unit vector; the only package that imports torch or OpenVINO."""
