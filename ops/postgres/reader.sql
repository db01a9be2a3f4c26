-- What promptmill_reader may see: everything but prompts, answers and what may quote them. Run it as the owner after
-- `promptmill migrate`, and again after each upgrade. `SELECT *` is denied on tables with a hidden column: name columns.

DO $$
DECLARE part record;
BEGIN
  FOR part IN
    SELECT table_name, string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) AS seen
    FROM information_schema.columns
    WHERE table_schema = 'public'
      AND table_name NOT IN ('prompt', 'reply')
      AND (table_name, column_name) NOT IN
        (('batch', 'shared'), ('batch', 'notify_url'), ('batch', 'notify_fault'), ('attempt', 'error_message'),
         ('schedule', 'what'))
    GROUP BY table_name
  LOOP
    EXECUTE format('GRANT SELECT (%s) ON %I TO promptmill_reader', part.seen, part.table_name);
  END LOOP;
END $$;
