"""What a study leaves: its folder, its history, its leaderboard and its library of masks."""
