"""The outlines of the lessons and the checks of their exercises, one file a lesson."""
