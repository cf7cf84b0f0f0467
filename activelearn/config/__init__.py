"""param.json and machine.json: from text to checked values."""
