//! Sign-in: the encryption key, tokens and cookies of Perses v0.54, passwords.

pub mod crypto;
