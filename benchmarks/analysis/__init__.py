"""What analysis costs, against the obvious script with scikit-learn, and in memory."""
