"""The issuer's tokens: find and revoke."""
