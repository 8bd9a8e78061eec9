"""From a picture or a text to a unit vector; the only room that imports torch or OpenVINO."""
