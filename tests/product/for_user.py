"""Lets the database refuse what a service does for a user without `UnitOfWork.for_user`.

A trigger on every table that refers to users, and on the outbox, looks whether the transaction has locked the user: by
a lock on the row, or because it has just written it. An erasure cannot come in between then. What tests write on the
connections for background work is not looked at.
"""

from sqlalchemy import ExceptionContext, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

CHECK = """
CREATE OR REPLACE FUNCTION demand_lock(who uuid, what text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  me xid := pg_current_xact_id()::xid;
  writer xid;
  locker xid;
  is_mine boolean := false;
BEGIN
  IF current_setting('application_name') NOT LIKE '%-app' THEN
    RETURN;
  END IF;
  SELECT xmin, xmax INTO writer, locker FROM users WHERE id = who;
  IF who IS NULL OR NOT FOUND OR writer = me OR locker = me THEN
    RETURN;
  END IF;
  BEGIN  -- of several lockers, the row has a list
    SELECT true INTO is_mine FROM pg_get_multixact_members(locker) WHERE xid = me;
  EXCEPTION WHEN OTHERS THEN NULL;  -- it is no list
  END;
  IF is_mine IS NOT TRUE THEN
    RAISE EXCEPTION '% is written for a user whom this transaction has not locked. '
      'Begin it with `await uow.for_user(user_id)`.', what;
  END IF;
END $$;
CREATE OR REPLACE FUNCTION demand_lock_of_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM demand_lock((to_jsonb(NEW) ->> TG_ARGV[0])::uuid, 'A row of ' || TG_TABLE_NAME);
  RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION demand_lock_of_effect() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.aggregate LIKE 'user:%' THEN
    PERFORM demand_lock(substr(NEW.aggregate, 6)::uuid, 'The effect ' || NEW.name);
  END IF;
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER demand_lock BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION demand_lock_of_effect()
"""
REFERRING = """
SELECT conrelid::regclass::text AS name, attname AS column FROM pg_constraint
JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
WHERE contype = 'f' AND confrelid = 'users'::regclass ORDER BY 1
"""
DEMAND = """
CREATE OR REPLACE TRIGGER demand_lock BEFORE INSERT ON {name}
FOR EACH ROW EXECUTE FUNCTION demand_lock_of_row('{column}')
"""


REFUSED: list[str] = []
"""What the triggers have said. A test has to look: the client sees only a response with status 500."""


def note_refusal(context: ExceptionContext) -> None:
    if "whom this transaction has not locked" in str(context.original_exception):
        REFUSED.append(str(context.original_exception))


async def demand_locks(engine: AsyncEngine) -> list[str]:
    """Set the triggers. Returns the names of the tables that refer to users."""
    event.listen(engine.sync_engine, "handle_error", note_refusal)
    async with engine.begin() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver
        await driver.execute(CHECK)  # several statements at once
        tables = (await connection.execute(text(REFERRING))).all()
        for name, column in tables:
            await connection.execute(text(DEMAND.format(name=name, column=column)))
    return [name for name, _ in tables]
