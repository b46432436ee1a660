-- Which of a block's images are in each state, a bit for each image, so that a search reads the images it returns and no
-- others. NULL: not known; then the block's images are read.
ALTER TABLE image_blocks
    ADD COLUMN waiting_bits    BIT(256),
    ADD COLUMN ready_bits      BIT(256),
    ADD COLUMN dispatched_bits BIT(256),
    ADD COLUMN done_bits       BIT(256),
    ADD COLUMN dead_bits       BIT(256),
    ADD COLUMN cancelled_bits  BIT(256);

-- The block's number while it has images of the state. These change seldom, so most updates stay heap-only.
ALTER TABLE image_blocks
    ADD COLUMN waiting_block    BIGINT GENERATED ALWAYS AS (CASE WHEN waiting > 0 THEN block END) STORED,
    ADD COLUMN ready_block      BIGINT GENERATED ALWAYS AS (CASE WHEN ready > 0 THEN block END) STORED,
    ADD COLUMN dispatched_block BIGINT GENERATED ALWAYS AS (CASE WHEN dispatched > 0 THEN block END) STORED,
    ADD COLUMN done_block       BIGINT GENERATED ALWAYS AS (CASE WHEN done > 0 THEN block END) STORED,
    ADD COLUMN dead_block       BIGINT GENERATED ALWAYS AS (CASE WHEN dead > 0 THEN block END) STORED,
    ADD COLUMN cancelled_block  BIGINT GENERATED ALWAYS AS (CASE WHEN cancelled > 0 THEN block END) STORED;

CREATE INDEX image_blocks_waiting ON image_blocks (job, waiting_block) WHERE waiting_block IS NOT NULL;
CREATE INDEX image_blocks_ready ON image_blocks (job, ready_block) WHERE ready_block IS NOT NULL;
CREATE INDEX image_blocks_dispatched ON image_blocks (job, dispatched_block) WHERE dispatched_block IS NOT NULL;
CREATE INDEX image_blocks_done ON image_blocks (job, done_block) WHERE done_block IS NOT NULL;
CREATE INDEX image_blocks_dead ON image_blocks (job, dead_block) WHERE dead_block IS NOT NULL;
CREATE INDEX image_blocks_cancelled ON image_blocks (job, cancelled_block) WHERE cancelled_block IS NOT NULL;

-- Coordinators of the version before count images and do not know the bits. Where they change a block, its bits are not
-- known any more.
CREATE FUNCTION forget_block_bits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.waiting_bits := NULL;
    NEW.ready_bits := NULL;
    NEW.dispatched_bits := NULL;
    NEW.done_bits := NULL;
    NEW.dead_bits := NULL;
    NEW.cancelled_bits := NULL;
    RETURN NEW;
END $$;

CREATE TRIGGER image_blocks_bits BEFORE UPDATE ON image_blocks FOR EACH ROW
    WHEN (OLD.waiting_bits IS NOT NULL AND
          (OLD.waiting_bits, OLD.ready_bits, OLD.dispatched_bits, OLD.done_bits, OLD.dead_bits, OLD.cancelled_bits)
          IS NOT DISTINCT FROM
          (NEW.waiting_bits, NEW.ready_bits, NEW.dispatched_bits, NEW.done_bits, NEW.dead_bits, NEW.cancelled_bits))
    EXECUTE FUNCTION forget_block_bits();
