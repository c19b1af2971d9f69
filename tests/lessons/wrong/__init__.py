"""What students hand in that is wrong, and the hint that each deserves."""
