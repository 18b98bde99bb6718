//! What is kept and what goes, sentence by sentence.

mod keeping;
