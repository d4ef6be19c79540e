"""Three tiers: unit (values), api (a real API server), e2e (real nodes and real Triton); and what they stand on."""
