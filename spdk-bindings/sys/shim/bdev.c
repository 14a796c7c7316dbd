/* Block devices: descriptors with their events, channels with their completions. */
#include "shim.h"

#include "spdk/bdev_module.h"
#include "spdk/module/bdev/nvme.h"
#include "spdk/nvme_spec.h"

/* Facts about an open device; ours, so that Rust knows the layout. */
struct ks_bdev_facts {
	uint64_t num_blocks;
	uint32_t block_size;
	uint32_t optimal_io_blocks;
	uint32_t md_size;
	/* Bytes that buffers must be aligned to. */
	uint32_t buf_align;
	uint8_t uuid[16];
	/* 1 write, 2 unmap, 4 flush, 8 write zeroes, 16 volatile write cache, 32 NVMe admin commands, 64 flushes are answered and not sent */
	uint32_t abilities;
	/* Number of the NVMe namespace on its controller; 0: it is none. */
	uint32_t nsid;
	char module[44];
};

/* `event`: 0 removed, 1 resized. Called on the thread that opened. */
typedef void (*ks_bdev_event_fn)(int event, uint64_t num_blocks, void *arg);

struct ks_desc {
	struct spdk_bdev_desc *desc;
	ks_bdev_event_fn event;
	void *arg;
};

static void
ks_event(enum spdk_bdev_event_type type, struct spdk_bdev *bdev, void *ctx)
{
	struct ks_desc *desc = ctx;

	switch (type) {
	case SPDK_BDEV_EVENT_REMOVE:
		desc->event(0, 0, desc->arg);
		break;
	case SPDK_BDEV_EVENT_RESIZE:
		desc->event(1, spdk_bdev_get_num_blocks(bdev), desc->arg);
		break;
	default:
		break;
	}
}

/* Opens a device by name; `event` is called until ks_bdev_close. On the current thread. */
int
ks_bdev_open(const char *name, int write, ks_bdev_event_fn event, void *arg, struct ks_desc **out)
{
	struct ks_desc *desc = calloc(1, sizeof(*desc));
	int rc;

	if (desc == NULL) {
		return -ENOMEM;
	}
	desc->event = event;
	desc->arg = arg;
	rc = spdk_bdev_open_ext(name, write, ks_event, desc, &desc->desc);
	if (rc != 0) {
		free(desc);
		return rc;
	}
	*out = desc;
	return 0;
}

/* On the thread that opened, after the last channel is gone. */
void
ks_bdev_close(struct ks_desc *desc)
{
	spdk_bdev_close(desc->desc);
	free(desc);
}

/*
 * SPDK answers flushes of SSDs with a volatile write cache without sending them unless it is told otherwise: it is. The JSON may
 * say so again, and does where it was saved by another program of SPDK's. Before any controller is attached.
 */
int
ks_nvme_flush(void)
{
	struct spdk_bdev_nvme_opts opts = {};

	spdk_bdev_nvme_get_opts(&opts, sizeof(opts));
	opts.enable_flush = true;
	return spdk_bdev_nvme_set_opts(&opts);
}

static bool
ks_loses_flushes(struct spdk_bdev *bdev)
{
	struct spdk_bdev_nvme_opts opts = {};

	if (!spdk_bdev_has_write_cache(bdev) || strcmp(spdk_bdev_get_module_name(bdev), "nvme") != 0) {
		return false;
	}
	spdk_bdev_nvme_get_opts(&opts, sizeof(opts));
	return !opts.enable_flush;
}

void
ks_bdev_facts(struct ks_desc *desc, struct ks_bdev_facts *facts)
{
	struct spdk_bdev *bdev = spdk_bdev_desc_get_bdev(desc->desc);
	uint32_t boundary = spdk_bdev_get_optimal_io_boundary(bdev);

	memset(facts, 0, sizeof(*facts));
	facts->num_blocks = spdk_bdev_get_num_blocks(bdev);
	facts->block_size = spdk_bdev_get_block_size(bdev);
	facts->optimal_io_blocks = boundary > 0 ? boundary : 1;
	facts->md_size = spdk_bdev_get_md_size(bdev);
	facts->buf_align = (uint32_t)spdk_bdev_get_buf_align(bdev);
	memcpy(facts->uuid, spdk_bdev_get_uuid(bdev), sizeof(facts->uuid));
	facts->abilities = (spdk_bdev_io_type_supported(bdev, SPDK_BDEV_IO_TYPE_WRITE) ? 1 : 0) |
			   (spdk_bdev_io_type_supported(bdev, SPDK_BDEV_IO_TYPE_UNMAP) ? 2 : 0) |
			   (spdk_bdev_io_type_supported(bdev, SPDK_BDEV_IO_TYPE_FLUSH) ? 4 : 0) |
			   (spdk_bdev_io_type_supported(bdev, SPDK_BDEV_IO_TYPE_WRITE_ZEROES) ? 8 : 0) |
			   (spdk_bdev_has_write_cache(bdev) ? 16 : 0) |
			   (spdk_bdev_io_type_supported(bdev, SPDK_BDEV_IO_TYPE_NVME_ADMIN) ? 32 : 0) |
			   (ks_loses_flushes(bdev) ? 64 : 0);
	facts->nsid = spdk_bdev_get_nvme_nsid(bdev);
	snprintf(facts->module, sizeof(facts->module), "%s", spdk_bdev_get_module_name(bdev));
}

/* The n-th device's name into `name`; 0, or -ENODEV past the last. On an SPDK thread. */
int
ks_bdev_name(size_t n, char *name, size_t length)
{
	struct spdk_bdev *bdev = spdk_bdev_first();

	for (; bdev != NULL && n > 0; n--) {
		bdev = spdk_bdev_next(bdev);
	}
	if (bdev == NULL) {
		return -ENODEV;
	}
	snprintf(name, length, "%s", spdk_bdev_get_name(bdev));
	return 0;
}

/* One admin command under way, with a channel and a buffer of its own. */
struct ks_admin {
	struct spdk_io_channel *channel;
	void (*done)(int status, const void *data, size_t length, void *arg);
	void *arg;
	size_t length;
	void *buf;
};

static void
ks_admin_end(struct ks_admin *admin)
{
	if (admin->channel != NULL) {
		spdk_put_io_channel(admin->channel);
	}
	spdk_free(admin->buf);
	free(admin);
}

static void
ks_admin_done(struct spdk_bdev_io *bdev_io, bool success, void *ctx)
{
	struct ks_admin *admin = ctx;

	spdk_bdev_free_io(bdev_io);
	admin->done(success ? 0 : -EIO, admin->buf, success ? admin->length : 0, admin->arg);
	ks_admin_end(admin);
}

/*
 * Asks the controller under a device, without data to it: `command` is a submission entry, whose data pointer is filled in. On the thread that
 * opened. 0, and `done` is called once on the same thread, with data that is valid for the call; or a negative errno, and it is not.
 */
int
ks_bdev_admin(struct ks_desc *desc, const void *command, size_t length,
	      void (*done)(int, const void *, size_t, void *), void *arg)
{
	struct ks_admin *admin = calloc(1, sizeof(*admin));
	struct spdk_nvme_cmd cmd;
	int rc;

	if (admin == NULL) {
		return -ENOMEM;
	}
	memcpy(&cmd, command, sizeof(cmd));
	admin->done = done;
	admin->arg = arg;
	admin->length = length;
	admin->buf = spdk_zmalloc(length, 4096, NULL, SPDK_ENV_NUMA_ID_ANY, SPDK_MALLOC_DMA);
	admin->channel = spdk_bdev_get_io_channel(desc->desc);
	if (admin->buf == NULL || admin->channel == NULL) {
		ks_admin_end(admin);
		return -ENOMEM;
	}
	rc = spdk_bdev_nvme_admin_passthru(desc->desc, admin->channel, &cmd, admin->buf, length,
					   ks_admin_done, admin);
	if (rc != 0) {
		ks_admin_end(admin);
	}
	return rc;
}

struct ks_channel;

struct ks_io {
	struct ks_channel *channel;
	uint32_t tag;
	/* A flush follows the write. */
	uint32_t fua;
};

/* What is done, for the owner to take; ours. `status` is 0 or a negative errno. */
struct ks_done {
	uint32_t tag;
	int32_t status;
};

/*
 * One thread's channel on a device, for I/Os numbered from 0 to capacity - 1. Every I/O that was submitted has exactly one entry in
 * `done`, until the owner sets `done_count` to 0 again: it cannot overflow. The owner counts what is out.
 */
struct ks_channel {
	struct spdk_bdev_desc *desc;
	struct spdk_io_channel *channel;
	struct ks_done *done;
	struct ks_io *ios;
	uint32_t done_count;
	/* Set by ks_channel_free, with the I/Os that are still to come: the last one takes the memory with it. */
	uint32_t outstanding;
	void (*orphaned)(void *);
	void *orphan;
};

static void
ks_channel_end(struct ks_channel *channel)
{
	if (channel->channel != NULL) {
		spdk_put_io_channel(channel->channel);
	}
	free(channel->done);
	free(channel->ios);
	free(channel);
}

struct ks_channel *
ks_channel_new(struct ks_desc *desc, uint32_t capacity)
{
	struct ks_channel *channel = calloc(1, sizeof(*channel));
	uint32_t tag;

	if (channel == NULL) {
		return NULL;
	}
	channel->desc = desc->desc;
	channel->done = calloc(capacity, sizeof(*channel->done));
	channel->ios = calloc(capacity, sizeof(*channel->ios));
	if (channel->done != NULL && channel->ios != NULL) {
		channel->channel = spdk_bdev_get_io_channel(desc->desc);
	}
	if (channel->channel == NULL) {
		ks_channel_end(channel);
		return NULL;
	}
	for (tag = 0; tag < capacity; tag++) {
		channel->ios[tag].channel = channel;
		channel->ios[tag].tag = tag;
	}
	return channel;
}

/*
 * Lets go of the channel on its thread. `out` I/Os were submitted and not taken. With some at the device it lives on, with its owner's buffers,
 * and `orphaned(orphan)` is called on the same thread when the last has come back; without, at once. Either way exactly one call.
 */
void
ks_channel_free(struct ks_channel *channel, uint32_t out, void (*orphaned)(void *), void *orphan)
{
	channel->outstanding = out - channel->done_count;
	if (channel->outstanding == 0) {
		ks_channel_end(channel);
		orphaned(orphan);
		return;
	}
	channel->orphaned = orphaned;
	channel->orphan = orphan;
}

static void
ks_finish_orphan(struct ks_channel *channel)
{
	void (*orphaned)(void *) = channel->orphaned;
	void *orphan = channel->orphan;

	if (--channel->outstanding == 0) {
		ks_channel_end(channel);
		orphaned(orphan);
	}
}

static int
ks_status(struct spdk_bdev_io *bdev_io)
{
	int sc, sct, result;
	uint32_t cdw0;

	switch (bdev_io->internal.status) {
	case SPDK_BDEV_IO_STATUS_NOMEM:
		return -ENOMEM;
	case SPDK_BDEV_IO_STATUS_ABORTED:
		return -ECANCELED;
	case SPDK_BDEV_IO_STATUS_AIO_ERROR:
		spdk_bdev_io_get_aio_status(bdev_io, &result);
		return result < 0 ? result : -EIO;
	case SPDK_BDEV_IO_STATUS_NVME_ERROR:
		spdk_bdev_io_get_nvme_status(bdev_io, &cdw0, &sct, &sc);
		/* Generic: aborted because the queue was deleted; path: aborted by the host. */
		return (sct == 0 && sc == 0x08) || (sct == 3 && sc == 0x71) ? -ENODEV : -EIO;
	default:
		return -EIO;
	}
}

static void ks_complete(struct spdk_bdev_io *bdev_io, bool success, void *ctx);

/* All of the device: modules that spread a range over others make nothing of an empty one. */
static int
ks_flush(struct ks_io *io)
{
	struct ks_channel *channel = io->channel;
	struct spdk_bdev *bdev = spdk_bdev_desc_get_bdev(channel->desc);

	return spdk_bdev_flush_blocks(channel->desc, channel->channel, 0, spdk_bdev_get_num_blocks(bdev),
				      ks_complete, io);
}

static void
ks_complete(struct spdk_bdev_io *bdev_io, bool success, void *ctx)
{
	struct ks_io *io = ctx;
	struct ks_channel *channel = io->channel;
	int status = spdk_likely(success) ? 0 : ks_status(bdev_io);

	spdk_bdev_free_io(bdev_io);
	if (spdk_unlikely(io->fua)) {
		io->fua = 0;
		if (status == 0) {
			status = ks_flush(io);
			if (status == 0) {
				return;
			}
		}
	}
	if (spdk_unlikely(channel->orphaned != NULL)) {
		ks_finish_orphan(channel);
		return;
	}
	channel->done[channel->done_count].tag = io->tag;
	channel->done[channel->done_count].status = status;
	channel->done_count++;
}

/*
 * Start I/O `tag`, which must not be outstanding. 0, or a negative errno and nothing has started (-ENOMEM: try again after the
 * next completion).
 */
int
ks_read(struct ks_channel *channel, uint32_t tag, void *buf, uint64_t lba, uint64_t blocks)
{
	return spdk_bdev_read_blocks(channel->desc, channel->channel, buf, lba, blocks, ks_complete,
				     &channel->ios[tag]);
}

int
ks_write(struct ks_channel *channel, uint32_t tag, void *buf, uint64_t lba, uint64_t blocks, int fua)
{
	struct ks_io *io = &channel->ios[tag];
	int rc;

	io->fua = (uint32_t)fua;
	rc = spdk_bdev_write_blocks(channel->desc, channel->channel, buf, lba, blocks, ks_complete, io);
	if (spdk_unlikely(rc != 0)) {
		io->fua = 0;
	}
	return rc;
}

/* As ks_read, of those without data. op: 2 write zeroes, 3 unmap, 4 flush, of all of it. */
int
ks_submit(struct ks_channel *channel, uint32_t tag, int op, int fua, uint64_t lba, uint64_t blocks)
{
	struct ks_io *io = &channel->ios[tag];
	int rc;

	switch (op) {
	case 2:
		io->fua = (uint32_t)fua;
		rc = spdk_bdev_write_zeroes_blocks(channel->desc, channel->channel, lba, blocks, ks_complete, io);
		break;
	case 3:
		rc = spdk_bdev_unmap_blocks(channel->desc, channel->channel, lba, blocks, ks_complete, io);
		break;
	default:
		rc = ks_flush(io);
		break;
	}
	if (spdk_unlikely(rc != 0)) {
		io->fua = 0;
	}
	return rc;
}

/* Where the number of finished I/Os stands, and the I/Os themselves; until ks_channel_free. On the channel's thread, outside of its turns or inside. */
uint32_t *
ks_channel_done(struct ks_channel *channel, const struct ks_done **done)
{
	*done = channel->done;
	return &channel->done_count;
}
