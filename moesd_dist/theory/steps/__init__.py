"""Our model: the seconds of every part of a round, fitted to measured steps, with what they leave open."""
