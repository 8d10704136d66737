"""Purges one dataset as a careful script would: its row in one transaction, then the objects under both patterns, a thousand at a time.

usage: boto3_purge.py DATABASE_URL ENDPOINT BUCKET DATASET_ID     (keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)

Prints how many objects it deleted.
"""

import sys

import boto3
import psycopg

database, endpoint, bucket, dataset = sys.argv[1:]
with psycopg.connect(database) as connection:
    connection.execute("SELECT 1 FROM heimdall.synthetic_datasets WHERE id = %s FOR UPDATE", (dataset,))
    connection.execute("SELECT 1 FROM heimdall.models WHERE synthetic_dataset_id = %s AND is_active", (dataset,))
    connection.execute("DELETE FROM heimdall.synthetic_datasets WHERE id = %s", (dataset,))

store = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
pages = store.get_paginator("list_objects_v2")
deleted = 0
for prefix in (f"synthetic/{dataset}/", f"synthetic/dataset-{dataset}/"):
    for page in pages.paginate(Bucket=bucket, Prefix=prefix):
        keys = [{"Key": found["Key"]} for found in page.get("Contents", ())]
        if keys:
            reply = store.delete_objects(Bucket=bucket, Delete={"Objects": keys})
            deleted += len(reply.get("Deleted", ()))
print(deleted)
