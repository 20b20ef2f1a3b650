"""The warm tier: every group's messages in one DynamoDB table. Import what is needed from its modules; boto3 comes with them."""
