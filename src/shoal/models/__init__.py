"""Models: where weights come from, our SpeechLLM, the families Shoal understands."""
