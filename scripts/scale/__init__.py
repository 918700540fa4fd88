"""How a search grows: what each trial costs the driver when there are 100, 1,000 and 5,000."""
