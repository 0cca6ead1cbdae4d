//! The packet parser and map layouts.
#![no_std]
