//! What these tests need of a pool beyond what workers do.

use gateway::io::{Frame, FramePool};

/// A frame that holds `bytes`.
pub fn frame_of(pool: &mut FramePool, bytes: &[u8]) -> Frame {
    let mut frame = pool.reserve().unwrap();
    assert!(frame.set_len(bytes.len()));
    pool.data_mut(&mut frame).copy_from_slice(bytes);
    frame
}

/// Gives `frames` back.
pub fn release_all(pool: &mut FramePool, frames: &mut Vec<Frame>) {
    for frame in frames.drain(..) {
        pool.release(frame);
    }
}
