//! A warm worker neither allocates nor frees, whichever way packets go and of however many clients they are.

use aead::Aead;
use allocation_counter::measure;
use bench::load::Direction;
use bench_path::rig::Rig;
use gateway::dataplane::engine::BATCH_MAX;

const BATCH_COUNT: usize = 20;

/// Passes `BATCH_COUNT` batches twice, and counts what the second time allocates and frees.
fn assert_nothing_is_allocated(direction: Direction) {
    for aead in Aead::names().map(|name| Aead::by_name(name).unwrap()) {
        for client_count in [1, 100] {
            let mut rig = Rig::new(aead, client_count).unwrap();
            for len in [200, 1228] {
                rig.load(direction, len, BATCH_COUNT);
                rig.turn_until_idle();
            }
            rig.verify(direction, 2 * BATCH_COUNT * BATCH_MAX).unwrap();

            rig.load(direction, 700, BATCH_COUNT);
            let mut packet_count = 0;
            let heap = measure(|| packet_count = rig.turn_until_idle());
            assert_eq!(packet_count, BATCH_COUNT * BATCH_MAX);
            rig.verify(direction, packet_count).unwrap();
            assert_eq!(
                (heap.count_total, heap.count_current),
                (0, 0),
                "allocations, and allocations less frees, in {packet_count} packets of {client_count} clients with {}",
                aead.name()
            );
        }
    }
}

#[test]
fn opening_allocates_nothing() {
    assert_nothing_is_allocated(Direction::Decrypt);
}

#[test]
fn sealing_allocates_nothing() {
    assert_nothing_is_allocated(Direction::Encrypt);
}

#[test]
fn packets_between_clients_allocate_nothing() {
    assert_nothing_is_allocated(Direction::Hairpin);
}

#[test]
fn an_allocation_would_be_seen() {
    let heap = measure(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(8))));
    assert_eq!((heap.count_total, heap.count_current), (1, 0));
    let held = vec![1u8; 8];
    let heap = measure(|| drop(std::hint::black_box(held)));
    assert_eq!((heap.count_total, heap.count_current), (0, -1));
}
