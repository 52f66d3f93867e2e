"""Host machine-learning models behind the Amazon SageMaker hosting API, on machines you own."""
