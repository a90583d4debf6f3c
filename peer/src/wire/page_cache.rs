//! Whether bytes of a file are in memory, so that who needs them does not wait for the disk.

use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;

use rustix::io::{Errno, ReadWriteFlags};

/// Looked at once in so many bytes: what the kernel reads ahead at once, so that pages are there or not in such groups.
const STEP: u64 = 128 << 10;

/// Whether they are, as far as spot checks show. A file system that cannot tell counts as one that has to ask its disk.
pub fn holds(file: &File, bytes: Range<u64>) -> bool {
    let Some(last) = bytes.end.checked_sub(1).filter(|last| *last >= bytes.start) else { return true };
    let mut at = bytes.start;
    loop {
        let mut byte = [0];
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
            Ok(1) if at == last => return true,
            Ok(1) => at = (at + STEP).min(last),
            Err(Errno::OPNOTSUPP) => return lives_in_memory(file),
            _ => return false,
        }
    }
}

/// Whether the whole file system does; it has no need to answer the question above.
fn lives_in_memory(file: &File) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|statfs| u64::try_from(statfs.f_type) == Ok(TMPFS_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_was_just_written_is_held_and_what_is_not_there_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 300_000]).unwrap();
        // The test cannot choose where temporary files are: a file system that tells, one in memory, or neither.
        let tells = rustix::io::preadv2(&file, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT).is_ok();
        let holds_all = holds(&file, 0..300_000) && holds(&file, 5..6);
        assert_eq!(holds_all, tells || lives_in_memory(&file));
        assert!(!tells || !holds(&file, 0..300_001));
        assert!(holds(&file, 7..7));
    }
}
