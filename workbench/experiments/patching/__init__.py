"""Where an answer travels: parts of one run put into another, one by one, jointly and along paths."""
