"""Files results away: stage archive, retention, state backup."""
