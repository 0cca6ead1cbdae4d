/* Intel's ipsec-mb as a competitor: a program of its own, so that no Rust has to call C. Started as
 *
 *     ipsec-mb BATCH_LEN KEY_COUNT REPETITIONS LEN,LEN,...
 *
 * with the lengths of all texts. First it prints the tag of 64 zero bytes under the zero key and nonce, in hexadecimal.
 * Then it answers each line "seal" or "open" with one line: what each repetition took for all packets, in ns. */
#include <intel-ipsec-mb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FRAME_LEN = 2048, TEXT_OFFSET = 256 + 14 + 20 + 8 + 16, TAG_LEN = 16, PACKETS_MAX = 256 };

struct packet {
    uint8_t *text;
    size_t len;
    const uint8_t *key;
    uint8_t nonce[12];
    uint8_t tag[TAG_LEN];
};

static struct packet packets[PACKETS_MAX];
static uint8_t keys[PACKETS_MAX][32];
static uint8_t sealed[PACKETS_MAX][FRAME_LEN];

static _Noreturn void fail(const char *why) {
    fprintf(stderr, "ipsec-mb: %s\n", why);
    exit(1);
}

static int finish(IMB_JOB *job) {
    if (job == NULL) return 0;
    if (job->status != IMB_STATUS_COMPLETED) fail("a job failed");
    return 1;
}

/* One batch. The tags of opened packets are compared without stopping at a difference. */
static void run(IMB_MGR *manager, struct packet *batch, size_t count, int is_open) {
    size_t done = 0;
    for (size_t i = 0; i < count; i++) {
        IMB_JOB *job = IMB_GET_NEXT_JOB(manager);
        job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
        job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
        job->cipher_direction = is_open ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
        job->chain_order = is_open ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
        job->enc_keys = job->dec_keys = batch[i].key;
        job->key_len_in_bytes = 32;
        job->iv = batch[i].nonce;
        job->iv_len_in_bytes = 12;
        job->src = job->dst = batch[i].text;
        job->cipher_start_src_offset_in_bytes = job->hash_start_src_offset_in_bytes = 0;
        job->msg_len_to_cipher_in_bytes = job->msg_len_to_hash_in_bytes = batch[i].len;
        job->u.CHACHA20_POLY1305.aad = NULL;
        job->u.CHACHA20_POLY1305.aad_len_in_bytes = 0;
        job->auth_tag_output = is_open ? batch[i].tag : batch[i].text + batch[i].len;
        job->auth_tag_output_len_in_bytes = TAG_LEN;
        for (job = IMB_SUBMIT_JOB_NOCHECK(manager); job; job = IMB_GET_COMPLETED_JOB(manager)) done += finish(job);
    }
    while (done < count) {
        IMB_JOB *job = IMB_FLUSH_JOB(manager);
        if (job == NULL) fail("a job was lost");
        done += finish(job);
    }
    for (size_t i = 0; is_open && i < count; i++) {
        uint8_t difference = 0;
        for (size_t j = 0; j < TAG_LEN; j++) difference |= batch[i].tag[j] ^ batch[i].text[batch[i].len + j];
        if (difference) fail("an authentic packet was refused");
    }
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 5) fail("usage: ipsec-mb BATCH_LEN KEY_COUNT REPETITIONS LEN,LEN,...");
    size_t batch_len = strtoul(argv[1], NULL, 10), key_count = strtoul(argv[2], NULL, 10), count = 0;
    int repetitions = atoi(argv[3]);
    if (batch_len == 0 || key_count == 0 || key_count > PACKETS_MAX) fail("numbers out of range");
    IMB_MGR *manager = alloc_mb_mgr(0);
    uint8_t *memory = aligned_alloc(4096, PACKETS_MAX * FRAME_LEN);
    if (manager == NULL || memory == NULL) fail("no memory");
    init_mb_mgr_auto(manager, NULL);
    memset(memory, 0, PACKETS_MAX * FRAME_LEN);

    struct packet known = {.text = memory, .len = 64, .key = keys[0]};
    run(manager, &known, 1, 0);
    for (size_t i = 0; i < TAG_LEN; i++) printf("%02x", memory[64 + i]);
    printf("\n");
    fflush(stdout);

    for (char *len = strtok(argv[4], ","); len; len = strtok(NULL, ","), count++) {
        if (count == PACKETS_MAX) fail("too many packets");
        packets[count].len = strtoul(len, NULL, 10);
        if (packets[count].len > FRAME_LEN - TEXT_OFFSET - TAG_LEN) fail("a packet is too long");
        packets[count].text = memory + count * FRAME_LEN + TEXT_OFFSET;
        packets[count].key = keys[count % key_count];
        memcpy(packets[count].nonce + 4, &count, sizeof count);
        for (size_t i = 0; i < 32; i++) keys[count % key_count][i] = (uint8_t)(count % key_count * 41 + i * 7 + 1);
    }
    for (size_t i = 0; i < count; i++) memset(packets[i].text, (int)i, packets[i].len);
    run(manager, packets, count, 0);
    for (size_t i = 0; i < count; i++) memcpy(sealed[i], packets[i].text, packets[i].len + TAG_LEN);

    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        int is_open = line[0] == 'o';
        for (int repetition = 0; repetition <= repetitions; repetition++) {
            for (size_t i = 0; i < count; i++) memcpy(packets[i].text, sealed[i], packets[i].len + TAG_LEN);
            uint64_t start = now();
            for (size_t at = 0; at < count; at += batch_len)
                run(manager, packets + at, count - at < batch_len ? count - at : batch_len, is_open);
            uint64_t end = now();
            if (repetition > 0) printf("%llu ", (unsigned long long)(end - start));
        }
        printf("\n");
        fflush(stdout);
    }
    free_mb_mgr(manager);
    free(memory);
    return 0;
}
