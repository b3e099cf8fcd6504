"""What a metric may look at: an attribution, the truth, and the countermeasure's answers to masked inputs."""
