//! From a copied stack to lines of text: frames by the unwind tables of the loaded images, names by their symbols.

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _};
use object::{Object as _, ObjectSection as _, ObjectSegment as _};
use spdk_env::{SampleError, StackSample, sample_stack};
use std::collections::HashSet;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Frames of one back-trace; deeper ones are cut.
const FRAMES: usize = 64;
const PAGE: u64 = 4096;
/// Where a thread's turn calls what it runs.
const TURN: [&str; 3] = [
    "thread/src/task/table.rs",
    "thread/src/poller.rs",
    "thread/src/thread.rs",
];
/// What the standard library puts between a caller that contains panics and its closure.
const PLUMBING: [&str; 3] = ["catch_unwind<", "do_call<", "call_once<"];
/// How long the thread may take to copy its stack.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where OS thread `tid` of this process is: one line for each function, innermost first. Interrupts it for a few microseconds.
/// The first call reads the images' unwind tables and symbols, which takes up to a second. Control threads only.
///
/// # Errors
/// [`SampleError`] if it cannot be interrupted.
pub fn backtrace_of(tid: i32) -> Result<Vec<String>, SampleError> {
    let sample = sample_stack(tid, PATIENCE)?;
    static UNWINDER: Mutex<Option<Unwinder>> = Mutex::new(None);
    let mut unwinder = UNWINDER.lock().unwrap_or_else(PoisonError::into_inner);
    let unwinder = unwinder.get_or_insert_with(Unwinder::default);
    unwinder.add_new_images();
    Ok(name(&unwinder.frames(&sample)))
}

/// As [`backtrace_of`], with the reason as the only line if there is none.
pub(crate) fn backtrace_or_reason(tid: Option<i32>) -> Vec<String> {
    let Some(tid) = tid else {
        return vec!["(its OS thread is not known)".to_owned()];
    };
    backtrace_of(tid).unwrap_or_else(|error| vec![format!("(no back-trace: {error})")])
}

#[derive(Default)]
struct Unwinder {
    unwinder: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
    known: HashSet<u64>,
}

/// An executable mapping of a file, as `/proc/self/maps` has it.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    start: u64,
    end: u64,
    offset: u64,
    path: &'a str,
}

fn mapping(line: &str) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let flags = fields.next()?;
    let offset = fields.next()?;
    let path = fields.nth(2)?.trim();
    let hex = |text| u64::from_str_radix(text, 16).ok();
    (flags.contains('x') && path.starts_with('/')).then_some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        path,
    })
}

impl Unwinder {
    /// Modules are loaded at the start of the engine, but nothing depends on that.
    fn add_new_images(&mut self) {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        for mapping in maps.lines().filter_map(mapping) {
            if self.known.insert(mapping.start)
                && let Some(module) = image(&mapping)
            {
                self.unwinder.add_module(module);
            }
        }
    }

    /// Instruction pointers, innermost first.
    fn frames(&mut self, sample: &StackSample) -> Vec<u64> {
        let registers = UnwindRegsX86_64::new(sample.pc, sample.sp, sample.fp);
        let mut read_stack = |address: u64| {
            let at = usize::try_from(address.checked_sub(sample.sp).ok_or(())?).map_err(|_| ())?;
            let word = sample
                .stack
                .get(at..at.checked_add(8).ok_or(())?)
                .ok_or(())?;
            Ok(u64::from_ne_bytes(word.try_into().map_err(|_| ())?))
        };
        let mut frames =
            self.unwinder
                .iter_frames(sample.pc, registers, &mut self.cache, &mut read_stack);
        let mut all = Vec::new();
        // What cannot be unwound any further ends the list; what was found stays.
        while all.len() < FRAMES
            && let Ok(Some(frame)) = frames.next()
        {
            all.push(match frame {
                FrameAddress::InstructionPointer(address) => address,
                // The call is before it.
                FrameAddress::ReturnAddress(address) => address.get() - 1,
            });
        }
        all
    }
}

/// The unwind tables of a mapped file.
fn image(mapping: &Mapping<'_>) -> Option<Module<Vec<u8>>> {
    let file = fs::File::open(mapping.path).ok()?;
    // Reads the few sections that are asked for, not the whole file with its debug information.
    let cache = object::ReadCache::new(file);
    let object = object::File::parse(&cache).ok()?;
    // The kernel maps whole pages, so the page in which a segment begins tells which one it is.
    let segment = object
        .segments()
        .find(|segment| segment.file_range().0 / PAGE == mapping.offset / PAGE)?;
    let (offset, _) = segment.file_range();
    let bias = mapping
        .start
        .wrapping_sub(mapping.offset)
        .wrapping_add(offset)
        .wrapping_sub(segment.address());
    let section = |name: &str| {
        let section = object.section_by_name(name)?;
        let range = section.address()..section.address() + section.size();
        Some((range, section.data().ok()?.to_vec()))
    };
    let (eh_frame_svma, eh_frame) = section(".eh_frame").unzip();
    let (eh_frame_hdr_svma, eh_frame_hdr) = section(".eh_frame_hdr").unzip();
    let range_of = |name: &str| {
        let section = object.section_by_name(name)?;
        Some(section.address()..section.address() + section.size())
    };
    let info = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: range_of(".text"),
        got_svma: range_of(".got"),
        eh_frame_svma,
        eh_frame,
        eh_frame_hdr_svma,
        eh_frame_hdr,
        ..ExplicitModuleSectionInfo::default()
    };
    let range = mapping.start..mapping.end;
    Some(Module::new(mapping.path.to_owned(), range, bias, info))
}

/// One line for each function, inlined ones too, down to the turn that runs it: below that all units look the same.
fn name(frames: &[u64]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut in_turn = false;
    for &address in frames {
        let mut named = false;
        backtrace::resolve(
            std::ptr::without_provenance_mut(address as usize),
            |symbol| {
                let Some(function) = symbol.name() else {
                    return;
                };
                named = true;
                let function = format!("{function:#}");
                let file = symbol.filename();
                in_turn |= file.is_some_and(|file| TURN.iter().any(|turn| file.ends_with(turn)));
                if PLUMBING.iter().any(|name| function.contains(name)) {
                    return;
                }
                let place = match (file, symbol.lineno()) {
                    (Some(file), Some(line)) => format!(" at {}:{line}", file.display()),
                    _ => String::new(),
                };
                lines.push(format!("#{} {}{place}", lines.len(), plain(&function)));
            },
        );
        if in_turn {
            break;
        }
        if !named {
            lines.push(format!("#{} {address:#x}", lines.len()));
        }
    }
    lines
}

/// A function's name without the types it was made for, which can fill a screen. `<Type>::method` stays.
fn plain(function: &str) -> String {
    let mut name = String::new();
    let mut depth = 0;
    let mut before = ' ';
    for c in function.chars() {
        match c {
            '<' if depth > 0 || !name.is_empty() => depth += 1,
            '>' if depth > 0 && before == '-' => {}
            '>' if depth > 0 => depth -= 1,
            _ if depth == 0 => name.push(c),
            _ => {}
        }
        before = c;
    }
    name.replace("::::", "::")
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{Mapping, backtrace_of, mapping, plain};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    #[test]
    fn mappings_are_read_as_the_kernel_writes_them() {
        let line =
            "7f10-7f20 r-xp 00001000 fe:00 1234                       /usr/lib/with a space.so";
        assert_eq!(
            mapping(line),
            Some(Mapping {
                start: 0x7f10,
                end: 0x7f20,
                offset: 0x1000,
                path: "/usr/lib/with a space.so"
            })
        );
        assert_eq!(
            mapping("7f10-7f20 rw-p 00001000 fe:00 1234 /usr/lib/x.so"),
            None
        );
        assert_eq!(mapping("7f10-7f20 r-xp 00000000 00:00 0 [vdso]"), None);
        assert_eq!(mapping("nonsense"), None);
    }

    #[test]
    fn types_are_left_out_of_names() {
        assert_eq!(plain("coded<host::submit, fn(i32) -> Vec<u8>>"), "coded");
        assert_eq!(plain("task::Task::<F>::poll"), "task::Task::poll");
        assert_eq!(
            plain("<spdk_thread::Thread>::poll"),
            "<spdk_thread::Thread>::poll"
        );
        assert_eq!(plain("scrub"), "scrub");
    }

    #[inline(never)]
    fn spin_by_name(stop: &AtomicBool, tell: &mpsc::Sender<i32>) {
        tell.send(spdk_env::OsThread::current().tid())
            .expect("listener");
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_spinning_function_is_named_with_who_called_it() {
        let (tell, told) = mpsc::channel();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| spin_by_name(&stop, &tell));
            let tid = told.recv().expect("worker");
            let lines = backtrace_of(tid).expect("back-trace");
            stop.store(true, Ordering::Relaxed);
            let all = lines.join("\n");
            assert!(all.contains("spin_by_name"), "{all}");
            assert!(all.contains("unwind.rs:"), "{all}");
            assert!(
                all.contains("thread_start") || all.contains("start_thread"),
                "to the very start:\n{all}"
            );
        });
    }
}
