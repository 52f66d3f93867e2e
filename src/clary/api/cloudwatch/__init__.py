"""CloudWatch and CloudWatch Logs: what models and Clary count, and what containers print."""
