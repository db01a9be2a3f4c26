-- Forget what is known of a pool: its next call finds no record and begins a fresh one. The permits of this one
-- stay where they are and mean nothing to that.
--
-- KEYS  1 record
-- ARGV  none
-- Reply 1 when there was a record, else 0
-- Touches only this key.

return redis.call('DEL', KEYS[1])
