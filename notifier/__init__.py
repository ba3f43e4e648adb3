"""The mouth of Patrol: turns a notice into a mail. Stateless, and it never sees a secret."""
