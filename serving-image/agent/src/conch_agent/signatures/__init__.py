"""Signatures of models as OpenSSF Model Signing v1.0 defines them, without its library.

`bundle` parses the file of a signature, a Sigstore bundle with an in-toto statement in a DSSE envelope. `trust` reads
the keys that a user trusts, and verifies the envelope with them; `identity` verifies those of Sigstore's identities.
`statement` has the files that are signed.

The library model-signing verifies files on a disk, and hashes all of them anew. The agent hashes files while they
arrive, so it verifies envelopes alone: with cryptography, which is imported when a model has a signature to verify, and
for identities with Sigstore's own library.
"""
