"""Coverage-guided fuzzing of what parses text of others: `make fuzz`. The fuzzer is Atheris, libFuzzer for Python."""
