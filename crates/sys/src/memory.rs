//! Memory that is not needed: few arenas, and pages given back after big work.
//!
//! glibc gives each thread that finds the others busy an arena of its own and keeps what was freed in it; a daemon that
//! once unpacked a large image would then hold that memory for good. Other C libraries have neither knob nor problem.

#![allow(
    unsafe_code,
    reason = "mallopt, malloc_trim, mallinfo2 and the program's own bounds have no safe wrapper"
)]

use std::io;

/// Limits the allocator to `arenas` arenas. To be called before threads are started.
pub fn limit_arenas(arenas: u8) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and only changes the allocator's own settings, under its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::from(arenas));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = arenas;
}

/// Gives back what an idle process does not need: free pages of the heap, and the program's own code.
pub fn settle() {
    trim();
    // What stays is counted as ours, and works all the same.
    let _ = release_code();
}

/// Gives free pages of all arenas back to the kernel. Takes milliseconds on a large heap.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the number of bytes to keep at the top and touches only memory that nobody owns.
    unsafe {
        libc::malloc_trim(0);
    }
}

unsafe extern "C" {
    /// The linker's names for the beginning of the program and the end of its code.
    static __executable_start: u8;
    static etext: u8;
}

/// Takes the program's own code and constants out of our address space; what is needed comes back from the page cache
/// when it is touched. An idle process then counts as the few pages that it sleeps in.
fn release_code() -> io::Result<()> {
    let (start, end) = (&raw const __executable_start as usize, &raw const etext as usize);
    let page = rustix::param::page_size();
    let (start, end) = (start & !(page - 1), end & !(page - 1));
    // SAFETY: these pages are mapped from the program's file, privately and without permission to write, so nothing but
    // what the file says was ever in them, and the kernel reads it again on the next touch.
    let result =
        unsafe { libc::madvise(start as *mut libc::c_void, end.saturating_sub(start), libc::MADV_DONTNEED) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The allocator's account of the heap, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Taken from the kernel in arenas.
    pub from_kernel: u64,
    /// Taken from the kernel one by one, for large blocks.
    pub mapped: u64,
    /// Of the arenas, handed out.
    pub in_use: u64,
    /// Of the arenas, not handed out, whether or not the kernel has the pages back.
    pub free: u64,
}

/// How the heap is used; `None` where the C library does not tell.
pub fn heap() -> Option<Heap> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallinfo2 takes nothing and returns numbers, read under the allocator's own locks.
        let info = unsafe { libc::mallinfo2() };
        Some(Heap {
            from_kernel: info.arena as u64,
            mapped: info.hblkhd as u64,
            in_use: info.uordblks as u64,
            free: info.fordblks as u64,
        })
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_handed_out_is_on_the_account() {
        let kept = vec![1u8; 50_000];
        let Some(heap) = super::heap() else { return };
        assert!(heap.in_use > 0 && heap.from_kernel + heap.mapped >= kept.len() as u64, "{heap:?}");
    }

    #[test]
    fn released_code_runs_on() {
        super::release_code().unwrap();
        assert_eq!(format!("{:?}", Some(1)), "Some(1)");
    }

    #[test]
    fn trimming_leaves_live_memory_alone() {
        super::limit_arenas(2);
        let kept: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        drop(vec![1u8; 8 << 20]);
        super::trim();
        assert!(kept.iter().zip((0..=255u8).cycle()).all(|(a, b)| *a == b));
    }
}
