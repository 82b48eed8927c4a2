//! What `RESTORE` is given: the checksum is made right, so that the value is looked at. What is taken must be given back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol_resp::rdb;

fuzz_target!(|data: &[u8]| {
    if let Ok(object) = rdb::restore(&rdb::signed(data)) {
        let again = rdb::restore(&rdb::dump(&object));
        assert!(again.is_ok());
    }
});
