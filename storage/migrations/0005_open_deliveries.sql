-- The few deliveries that are not final: what Redis must have in motion, and is compared with and rebuilt from.
create index deliveries_open on deliveries (id) where status in ('SCHEDULED', 'QUEUED', 'RETRYING', 'SENDING');
