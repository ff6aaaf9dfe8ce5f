-- A number of the process that wrote it; NULL from a release that wrote none.
ALTER TABLE purge ADD COLUMN origin INTEGER;
