"""What an edit does: against the unedited run, component by component, and through routing or through content."""
