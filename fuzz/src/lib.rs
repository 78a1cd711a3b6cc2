//! What is fuzzed: one function per decoder, shared by libFuzzer and by the replay of the corpus.
pub mod decoders;
