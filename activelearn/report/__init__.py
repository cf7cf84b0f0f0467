"""What the user sees: functions of the record and the data alone."""
